"""Checks of parameters and arrays that users pass, with errors in the words of images."""
