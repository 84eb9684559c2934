//! Tests with SeaORM.
//!
//! A test takes a `DatabaseConnection`, which is a pool. The test is an `async fn` without the
//! runtime's attribute.
//!
//! Run it by `cargo test -p sandboxed-db-examples --features sea-orm --test sea_orm`.

use sandboxed_db::sandboxed_db;
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

mod order {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "orders")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub(super) id: i32,
        pub(super) article: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(super) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

async fn place(db: &DatabaseConnection, article: &str) -> Result<order::Model, DbErr> {
    order::ActiveModel { article: Set(article.to_owned()), ..Default::default() }.insert(db).await
}

#[sandboxed_db(seed = "orders.sql")]
async fn orders_are_found_by_their_article(db: DatabaseConnection) -> Result<(), DbErr> {
    place(&db, "tea").await?;
    let milk = place(&db, "milk").await?;
    let found = order::Entity::find().filter(order::Column::Article.eq("milk")).all(&db).await?;
    assert_eq!(found, [milk]);
    Ok(())
}

/// Starts without the orders of other tests.
#[sandboxed_db(seed = "orders.sql")]
async fn order_numbers_begin_at_one(db: DatabaseConnection) -> Result<(), DbErr> {
    assert_eq!(place(&db, "tea").await?.id, 1);
    Ok(())
}
