fn main() {
    let mut db = sandboxed_db_fixtures::shop_snapshot();
    for _ in 0..5 {
        let db = db.start().unwrap_or_else(|e| panic!("{e:?}"));
        println!("{:?} {:?}", db, db.timings());
        let mut c = postgres::Client::connect(db.url(), postgres::NoTls).unwrap();
        println!(
            "{}",
            c.query_one("select count(*) from orders", &[])
                .unwrap()
                .get::<_, i64>(0)
        );
    }
    db = sandboxed_db::Snapshot::new(sandboxed_db::Postgres::new());
    let s = db.start().unwrap();
    println!("{:?} {:?} {}", s, s.timings(), s.log().unwrap());
}
