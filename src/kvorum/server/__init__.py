"""The real world of a node: the loop, sockets, files, threads and signals."""
