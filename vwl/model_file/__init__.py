"""A trained model as one file, and the classes that predict with it: without run folder, index and Ray."""
