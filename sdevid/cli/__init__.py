"""`sdevid COMMAND`: thin doors to what can all be called from a program."""
