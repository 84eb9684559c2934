//! The chain of a description at its last build: the first difference shows which file is being
//! edited.
//!
//! A layer is published at the end of each step. A migration in the middle of a set that is edited
//! once will be edited again, so a further layer is published before it, and the next edit runs no
//! migration before it.
//!
//! ```text
//! <cache>/chains/<description>     the chain's digests, a line each
//! ```

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::digest::Digest;
use crate::cache::Cache;

const CHAINS: &str = "chains";

/// Counts the links of the chain that are as they were, if one after them has changed since.
pub(super) fn edited_after(cache: &Cache, description: Digest, chain: &[Digest]) -> Option<usize> {
    let before = fs::read_to_string(path(cache, description)).ok()?;
    let same = before.lines().zip(chain).take_while(|(before, now)| **before == now.to_string()).count();
    (same < before.lines().count() && same < chain.len()).then_some(same)
}

/// Notes the chain as it was built.
pub(super) fn note(cache: &Cache, description: Digest, chain: &[Digest]) {
    let lines: String = chain.iter().map(|digest| format!("{digest}\n")).collect();
    // Without the file the next build runs more than it must.
    let _ = cache.write(&path(cache, description), lines);
}

/// Removes chains that are older.
pub(super) fn prune(cache: &Cache, age: Duration) {
    cache.remove_older(CHAINS, age, |_| false);
}

fn path(cache: &Cache, description: Digest) -> PathBuf {
    cache.path(CHAINS).join(description.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_link_that_changed_is_found() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path());
        let chain = |text: &str| -> Vec<Digest> {
            text.bytes().map(|byte| blake3::hash(&[byte]).to_hex().as_str().parse().unwrap()).collect()
        };
        let description = chain("d")[0];
        let edited = |now: &str| edited_after(&cache, description, &chain(now));
        assert_eq!(edited("abc"), None);
        note(&cache, description, &chain("abcd"));
        assert_eq!(edited("abXY"), Some(2));
        assert_eq!(edited("Xbcd"), Some(0));
        assert_eq!(edited("abX"), Some(2));
        // Nothing has changed, something was added, something was taken away.
        assert_eq!((edited("abcd"), edited("abcde"), edited("abc")), (None, None, None));
        prune(&cache, Duration::from_secs(60));
        assert_eq!(edited("abXY"), Some(2));
        prune(&cache, Duration::ZERO);
        assert_eq!(edited("abXY"), None);
    }
}
