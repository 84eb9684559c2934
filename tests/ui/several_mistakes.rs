use sandboxed_db::sandboxed_db;

#[sandboxed_db(sed = "users.sql", start_timeout = "eventually")]
const fn a_test() {}

fn main() {
    a_test();
}
