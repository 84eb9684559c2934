use sandboxed_db::sandboxed_db;

#[sandboxed_db]
struct Shop {
    open: bool,
}

fn main() {
    // It is left as it was, so that one mistake does not become two.
    assert!(Shop { open: true }.open);
}
