"""What a run has found, and how it is shown.

The modules, in the order in which data flows (each imports only from those before it):

=========  =============================================================
settings   what is looked for and where it is written: the flags
near       photos that are almost the same
health     what is wrong with the photos themselves
results    what the test images say, and all that a run found
events     TensorBoard's event files, as records
summaries  what they hold of a run
plots      figures -> PNG pictures
page       results -> report.html, metrics.json
writing    the page is made, or an error says why not
=========  =============================================================
"""
