//! The pieces of a file that hold more than zeroes.

use crate::launch::image::format::{PAGE, is_zero};
use crate::sys::call_list::{Calls, PASSING};

/// Offset and bytes of each piece, in ascending order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Runs(Vec<(u64, Vec<u8>)>);

impl Runs {
    /// Splits contents. A few pages of zeroes between others are cheaper written than left out.
    pub(super) fn of(contents: &[u8]) -> Self {
        const GAP: u64 = 3 * PAGE;
        let mut runs = Self::default();
        for (page, offset) in contents.chunks(PAGE as usize).zip((0..).step_by(PAGE as usize)) {
            if is_zero(page) {
                continue;
            }
            if let Some((start, run)) = runs.0.last_mut()
                && offset - (*start + run.len() as u64) <= GAP
            {
                run.resize((offset - *start) as usize, 0);
            }
            runs.add(offset, page);
        }
        runs
    }

    /// Adds a page, which lies after all others.
    pub(super) fn add(&mut self, offset: u64, page: &[u8]) {
        match self.0.last_mut() {
            Some((start, run)) if *start + run.len() as u64 == offset => run.extend_from_slice(page),
            _ => self.0.push((offset, page.to_vec())),
        }
    }

    /// The number of bytes.
    pub(super) fn length(&self) -> u64 {
        self.0.iter().map(|(_, run)| run.len() as u64).sum()
    }

    /// Adds the calls that write all pieces to an empty file, and the pieces to the pages at
    /// [`PASSING`]. In ascending order and before the file has its size: larger pages would be
    /// cleared whole.
    pub(super) fn write(&self, descriptor: u64, passing: &mut Vec<u8>, list: &mut Calls) {
        for (offset, run) in &self.0 {
            let (from, length) = (PASSING.start + passing.len() as u64, run.len() as u64);
            list.call_for(libc::SYS_pwrite64, &[descriptor, from, length, *offset], length);
            passing.extend_from_slice(run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_leave_out_zeroes_but_for_a_few_pages() {
        const SIZE: usize = PAGE as usize;
        let mut contents = vec![0; 12 * SIZE + 7];
        for page in [1, 2, 6, 11] {
            contents[page * SIZE + 5] = 1;
        }
        contents[12 * SIZE + 6] = 1;
        let runs = Runs::of(&contents);
        let places: Vec<_> = runs.0.iter().map(|(start, run)| (*start as usize, run.len())).collect();
        assert_eq!(places, [(SIZE, 6 * SIZE), (11 * SIZE, SIZE + 7)]);
        assert!(runs.0.iter().all(|(start, run)| contents[*start as usize..].starts_with(run)));
        assert_eq!(runs.length() as usize, 7 * SIZE + 7);
        assert_eq!(Runs::of(&[0; 3 * SIZE]), Runs::default());
    }
}
