use sandboxed_db::FromSandbox;

struct Shop;

fn parameter<T: FromSandbox>() {}

fn main() {
    parameter::<Shop>();
}
