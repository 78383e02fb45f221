//! Messages from captures, for the tests of every decoder.
