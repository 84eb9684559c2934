//! Two hundred tests at once, each of which does its worst to its own database.
