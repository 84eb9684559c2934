//! Dialects of SQL.

/// A dialect of SQL, for [`Sql::dialect`](super::Sql::dialect). It decides how names and text are
/// quoted, and by which statements bookkeeping tables are filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// The dialect of PostgreSQL.
    Postgres,
    /// The dialect of MySQL and MariaDB, in which statements that change the schema commit the
    /// current transaction.
    MySql,
    /// The dialect of SQLite.
    Sqlite,
}

impl Dialect {
    /// Quotes a name.
    ///
    /// # Example
    /// ```
    /// use sandboxed_db::engine::Dialect;
    /// assert_eq!(Dialect::Postgres.identifier("a\"b"), "\"a\"\"b\"");
    /// assert_eq!(Dialect::MySql.identifier("a`b"), "`a``b`");
    /// ```
    #[must_use]
    pub fn identifier(self, name: &str) -> String {
        match self {
            Self::Postgres | Self::Sqlite => format!("\"{}\"", name.replace('"', "\"\"")),
            Self::MySql => format!("`{}`", name.replace('`', "``")),
        }
    }

    /// Quotes text. The outcome means the same whatever `standard_conforming_strings` or `sql_mode`
    /// is.
    ///
    /// # Example
    /// ```
    /// use sandboxed_db::engine::Dialect;
    /// assert_eq!(Dialect::Postgres.literal("it's"), "E'it''s'");
    /// assert_eq!(Dialect::MySql.literal("it's"), "'it''s'");
    /// assert_eq!(Dialect::MySql.literal("\\"), "CONVERT(X'5c' USING utf8mb4)");
    /// ```
    #[must_use]
    pub fn literal(self, text: &str) -> String {
        match self {
            Self::Postgres => format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''")),
            // A backslash is itself in the mode NO_BACKSLASH_ESCAPES.
            Self::MySql if text.contains('\\') => {
                let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
                format!("CONVERT(X'{hex}' USING utf8mb4)")
            }
            Self::MySql | Self::Sqlite => format!("'{}'", text.replace('\'', "''")),
        }
    }
}
