//! The attribute `#[sandboxed_db]`, in its own crate as procedural macros must be.
//!
//! Use it through `sandboxed-db`, which re-exports it with its documentation: examples can be
//! compiled there, and the expansion calls `sandboxed_db::harness`.
//!
//! The files follow the tokens. `args` reads the arguments (`names` their names, `values` their
//! values, `steps` those that prepare a database), `signature` and `attributes` read the function.
//! `databases` assigns a database to each parameter, `matrix` lists the tests, `files` checks that
//! named files exist, `drivers` that the features for types of drivers are on, and `engines` that
//! no engine is a guess. `expand` writes the tests around the call of the harness, which `call`
//! writes. Mistakes are collected in `diagnostics`, which words every message. All of it works on
//! [`proc_macro2`], so its tests need no compiler.

#![forbid(unsafe_code)]

mod args;
mod attributes;
mod call;
mod databases;
mod diagnostics;
mod drivers;
mod engines;
mod expand;
mod files;
mod matrix;
mod names;
mod signature;
mod steps;
mod values;

use proc_macro::TokenStream;

/// Makes a function that takes a database a test with a fresh one.
///
/// See the documentation of this attribute in the package `sandboxed-db`, which re-exports it.
#[proc_macro_attribute]
pub fn sandboxed_db(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let package = files::package(std::env::var_os("CARGO_MANIFEST_DIR"));
    expand::sandboxed_db(arguments.into(), &item.into(), package.as_deref()).into()
}
