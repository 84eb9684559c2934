//! What the chain of a description was when it was last built: where it differs now, somebody is editing.
//!
//! A layer is published at the end of each step. A migration in the middle of a set that is edited once will be edited
//! again, so a further layer is published before it, and the next edit there runs no migration before it.
//!
//! ```text
//! <cache>/chains/<description>     the chain's digests, a line each
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::digest::Digest;
use crate::cache;

/// How many links of the chain are as they were, if one after them has changed since.
pub(super) fn edited_after(cache: &Path, description: Digest, chain: &[Digest]) -> Option<usize> {
    let before = fs::read_to_string(path(cache, description)).ok()?;
    let same = before.lines().zip(chain).take_while(|(before, now)| **before == now.to_string()).count();
    (same < before.lines().count() && same < chain.len()).then_some(same)
}

/// Notes the chain as it was built.
pub(super) fn note(cache: &Path, description: Digest, chain: &[Digest]) {
    let lines: String = chain.iter().map(|digest| format!("{digest}\n")).collect();
    // Without it the next build runs more than it must, and that is all.
    let _ = cache::create(&cache.join("chains")).map(|()| fs::write(path(cache, description), lines));
}

/// Removes what was noted so long ago.
pub(super) fn prune(cache: &Path, age: Duration) {
    for entry in fs::read_dir(cache.join("chains")).into_iter().flatten().flatten() {
        let written = entry.metadata().and_then(|chain| chain.modified());
        if written.is_ok_and(|time| time.elapsed().is_ok_and(|since| since > age)) {
            // Somebody else may have done it.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn path(cache: &Path, description: Digest) -> PathBuf {
    cache.join("chains").join(description.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_link_that_changed_is_found() {
        let root = tempfile::tempdir().unwrap();
        let chain = |text: &str| -> Vec<Digest> {
            text.bytes().map(|byte| blake3::hash(&[byte]).to_hex().as_str().parse().unwrap()).collect()
        };
        let description = chain("d")[0];
        let edited = |now: &str| edited_after(root.path(), description, &chain(now));
        assert_eq!(edited("abc"), None);
        note(root.path(), description, &chain("abcd"));
        assert_eq!(edited("abXY"), Some(2));
        assert_eq!(edited("Xbcd"), Some(0));
        assert_eq!(edited("abX"), Some(2));
        // Nothing has changed, something was added, something was taken away.
        assert_eq!((edited("abcd"), edited("abcde"), edited("abc")), (None, None, None));
        prune(root.path(), Duration::from_secs(60));
        assert_eq!(edited("abXY"), Some(2));
        prune(root.path(), Duration::ZERO);
        assert_eq!(edited("abXY"), None);
    }
}
