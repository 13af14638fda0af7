"""Where the photos are, which files are images, and what their pixels are.

The modules, and a room that has a map of its own (``/``), in the order in which data flows (each
imports only from those before it):

=========  ====================================================================
settings   which distortions there are, and how strong
images     folder -> image files
places/    photos that are no files on the disk: in archives, behind addresses
labels     image folder -> labelled images, and the sets of a ready-made split
reading    image files -> bytes, several at once
structure  image files of too many parts, refused before they are decoded
shrink     an image of any mode and size -> 8 bits at the size wanted
decode     file bytes -> pixels; the only decoder
distort    file bytes -> pixels of distorted variants
fonts      text -> a font that has its letters
sheet      pictures in rows or on cards -> one PNG, for the eye
page       what HTML pages of photos share
=========  ====================================================================
"""
