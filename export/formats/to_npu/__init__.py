"""Int8 files of static graphs for NPUs and microcontrollers."""
