"""Videos and pictures in and out: what a file is, decoding, sound and other streams, encoding; nothing here paints."""
