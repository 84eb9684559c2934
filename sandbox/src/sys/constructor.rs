//! The entry of the launcher: a function that the dynamic linker calls before `main`.

use super::process::FreshProcess;

/// Runs when the program is loaded. In an ordinary start it reads one environment variable and
/// returns.
extern "C" fn before_main() {
    crate::launch::become_launcher_if_asked(FreshProcess::executed());
}

// SAFETY: the section `.init_array` holds pointers to functions that the dynamic linker calls once,
// before `main`, on the only thread; `before_main` has the C calling convention and ignores the
// arguments that glibc passes. It uses only parts of `std` that need no runtime set-up: the
// environment, files, memory.
#[unsafe(link_section = ".init_array")]
#[used]
static BEFORE_MAIN: extern "C" fn() = before_main;
