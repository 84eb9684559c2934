//! The threads of a process beside its first one.
//!
//! They are made when everything else of their process is there. None continues before all exist,
//! and none uses its list when the first one unmaps it: a thread waits at a gate, and the call
//! by which it leaves its list tells the first thread so.

use std::io;

use super::frozen::Frozen;
use super::thread::FrozenThread;
use super::tree::choose_next_id;
use crate::launch::image::kernel::{NO_SIGNAL_STACK, drop_capabilities, set_name, set_signal_stack};
use crate::sys::call_list::{Calls, Exit, NewThread, StoredLists};

const WAIT: u64 = (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG) as u64;
const WAKE: u64 = (libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG) as u64;
const CHANGE_AND_WAKE: u64 = (libc::FUTEX_WAKE_OP | libc::FUTEX_PRIVATE_FLAG) as u64;
/// FUTEX_OP_SET of futex(2), to one; its comparison, with zero, is of no use.
const SET_TO_ONE: u64 = 1 << 12;

/// A thread that is ready to be made.
pub(super) struct PreparedThread {
    new: NewThread,
    exit: Exit,
    /// The calls that it makes for itself.
    list: Calls,
}

impl PreparedThread {
    /// Asks for the state of all threads but the first one, and writes their frames.
    pub(super) fn all(process: &Frozen, lists: &mut StoredLists) -> io::Result<Vec<Self>> {
        let prepare = |thread: &FrozenThread| {
            let state = thread.state(process, process.room())?;
            let exit = process.prepare(thread, &state)?;
            let mut list = Calls::default();
            state.registrations.register_thread(&mut list);
            set_name(lists, &mut list, &state.name);
            if state.signal_stack != NO_SIGNAL_STACK {
                set_signal_stack(lists, &mut list, state.signal_stack);
            }
            drop_capabilities(lists, &mut list);
            let (pointer, clear) = (state.registrations.pointer, state.registrations.id);
            Ok(Self { new: NewThread { id: thread.id, pointer, clear }, exit, list })
        };
        process.others.iter().map(prepare).collect()
    }

    /// Adds the calls that make threads and let them go.
    pub(super) fn make_all(threads: Vec<Self>, lists: &mut StoredLists, list: &mut Calls) {
        if threads.is_empty() {
            return;
        }
        let gate = lists.lay(&[0; 4]);
        let mut gone = Vec::new();
        for Self { new, exit, list: mut own } in threads {
            let left = lists.lay(&[0; 4]);
            // The gate may be open by now.
            own.attempt(libc::SYS_futex, &[gate, WAIT, 0, 0]);
            own.leave(exit, libc::SYS_futex, &[left, CHANGE_AND_WAKE, 1, 0, left, SET_TO_ONE]);
            let own = lists.lay_list(&own);
            choose_next_id(new.id, lists, list);
            list.start_thread(new, own);
            gone.push(left);
        }
        // Any number but zero opens it.
        list.call_and_store(libc::SYS_getpid, &[], gate);
        list.call(libc::SYS_futex, &[gate, WAKE, i32::MAX as u64]);
        for left in gone {
            // It may have left by now.
            list.attempt(libc::SYS_futex, &[left, WAIT, 0, 0]);
        }
    }
}
