//! The way to an engine's client, which only steps of files need.

use std::fmt;

use crate::engine::{Scripts, Sql};

/// An engine's traits for files, noted where its type is known to have them: a step is otherwise
/// the same for all engines.
pub(crate) struct Language<E> {
    scripts: for<'a> fn(&'a E) -> &'a dyn Scripts,
    sql: Option<for<'a> fn(&'a E) -> &'a dyn Sql>,
}

impl<E> Language<E> {
    pub(crate) fn scripts(self, engine: &E) -> &dyn Scripts {
        (self.scripts)(engine)
    }

    /// Present for migrations.
    pub(super) fn sql(self, engine: &E) -> Option<&dyn Sql> {
        self.sql.map(|sql| sql(engine))
    }
}

impl<E: Scripts> Language<E> {
    pub(crate) fn of_scripts() -> Self {
        Self { scripts: |engine| engine, sql: None }
    }
}

impl<E: Sql> Language<E> {
    pub(crate) fn of_sql() -> Self {
        Self { scripts: |engine| engine, sql: Some(|engine| engine) }
    }
}

impl<E> Clone for Language<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Language<E> {}

impl<E> fmt::Debug for Language<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Language").field("sql", &self.sql.is_some()).finish()
    }
}
