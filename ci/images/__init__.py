"""Container images and root file systems for the local cluster and the tests."""
