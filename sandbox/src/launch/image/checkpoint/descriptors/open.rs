//! The numbers of descriptors, as far as a list has come.

use std::collections::BTreeSet;

use crate::sys::call_list::Calls;

/// The numbers of the descriptors that a process has open at a point of its list.
#[derive(Debug, Clone)]
pub(in super::super) struct Open(BTreeSet<u64>);

impl Open {
    /// Standard input, output and error.
    pub(in super::super) fn standard() -> Self {
        Self((0..3).collect())
    }

    /// The number of the next descriptor.
    pub(in super::super) fn lowest(&self) -> u64 {
        (0..).find(|number| !self.0.contains(number)).expect("there is no end")
    }

    /// Adds a call that makes a descriptor, and gives that its number.
    pub(super) fn create(
        &mut self,
        number: u64,
        close_on_exec: u64,
        call: libc::c_long,
        arguments: &[u64],
        list: &mut Calls,
    ) {
        let lowest = self.lowest();
        list.call_for(call, arguments, lowest);
        if lowest != number {
            list.call_for(libc::SYS_dup3, &[lowest, number, close_on_exec], number);
            list.call(libc::SYS_close, &[lowest]);
        }
        self.0.insert(number);
    }

    pub(super) fn has(&self, number: u64) -> bool {
        self.0.contains(&number)
    }

    /// Notes that a descriptor exists.
    pub(super) fn add(&mut self, number: u64) {
        self.0.insert(number);
    }

    pub(super) fn remove(&mut self, number: u64) {
        self.0.remove(&number);
    }
}
