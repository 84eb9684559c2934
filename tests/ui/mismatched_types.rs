// See `missing_file.rs` for why.
use rstest::fixture as rstest;
use sandboxed_db::sandboxed_db;

#[derive(Clone, Copy)]
struct Shop;

#[sandboxed_db]
#[rstest]
fn a_parameter(_: Shop) {}

#[sandboxed_db]
#[rstest]
fn a_result(_: String) -> Option<Shop> {
    Some(Shop)
}

#[sandboxed_db]
#[rstest]
async fn a_result_of_async(_: String) -> Shop {
    Shop
}

fn main() {}
