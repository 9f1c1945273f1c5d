"""ext2, ext3 and ext4: which blocks are used."""
