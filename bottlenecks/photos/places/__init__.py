"""Where photos lie that are no files on the disk: in an archive, or behind an address.

The modules, in the order in which data flows (each imports only from those before it):

=========  ====================================================================
addresses  which text is an address, and what of it may be said
tree       a list of names -> folders that can be looked through
members    what archives of all kinds have
zips       a zip archive -> its members
tars       a tar archive -> its members
archives   an archive on the disk as a folder of photos
reasons    why a request failed, in words that anybody may see
store      requests to what an address leads to, again and within a time
web        a web server's folders, page by page
remote     an address as a folder of photos
place      path or address -> where it lies; the one that decides
=========  ====================================================================
"""
