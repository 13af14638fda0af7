"""Rows on disk: immutable shards, one folder for each fingerprint.

The modules, in the order in which data flows (each imports only from those before it):

============  ==========================================================
layout        what the files of a cache folder are called
lock          one writer at a time
folder        what is asked of a place for these files, and the one on a local disk
remote        such a place behind an address, and which of the two it is
shard         rows <-> the bytes of one HDF5 file
catalogue     the keys of one alone, so that it need not be read
places        key -> shard and row
shelf         the shards of one fingerprint: found, checked, listed
cache         its rows: added, merged, read
vectors       any rows of a cache, in memory or on disk
stat_index    which files need not be read again
housekeeping  list, verify and prune a cache folder
============  ==========================================================
"""
