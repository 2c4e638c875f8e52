"""What people are shown: layers and kinds in words, pictures of masks, figures of work, tunings as tables and pages.

layers     which layers are of a kind, and what a kind is, briefly
work       operations, bytes and the least time they take on a GPU
decided    what is known of a kind before run time
configs    a config in few words
arguments  what a call takes beside q, k and v
quantities numbers with three digits and a unit
loops      a plan's loops over keys, in words
picture    a mask as shares of cells, and as text
plot       the same as a PNG
tunings    what the database knows of a spec, as rows
page       those rows as one HTML file
"""
