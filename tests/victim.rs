//! A program that starts sandboxes and then ends in the way that its arguments ask for.

fn main() {}
