//! Databases whose engine nothing names, in a test with other engines.
//!
//! PostgreSQL is the default. Beside another engine it would be a guess where the type of a
//! parameter does not say it: such a database needs a name of its engine.

use quote::ToTokens as _;
use syn::Type;

use crate::databases::{Databases, Made};
use crate::diagnostics::{self, Diagnostics};
use crate::signature::Parameter;

/// Types that every engine makes. The compiler finds the others.
const OF_EVERY_ENGINE: [&str; 2] = ["String", "Tcp"];

impl<'a> Databases<'a> {
    /// Returns the parameters whose type alone says the engine of their database.
    pub(crate) fn without_engine(&self) -> impl Iterator<Item = &'a Parameter<'a>> {
        let is_named = |database: usize| {
            let described = &self.described[database];
            described.snapshot.is_some() || !described.engines.is_empty()
        };
        let others = self.described.iter().any(|described| {
            described.engines.iter().any(|engine| engine.ident().is_none_or(|name| name != "Postgres"))
        });
        self.parameters.iter().filter_map(move |made| match made {
            Made::From(parameter, database) if others && !is_named(*database) => Some(*parameter),
            _ => None,
        })
    }

    /// Reports parameters that each engine of the test could make.
    pub(crate) fn check_engines(&self, diagnostics: &mut Diagnostics) {
        for parameter in self.without_engine().filter(|parameter| is_of_every_engine(parameter.ty)) {
            diagnostics.push(diagnostics::unnamed_engine(parameter.ty, parameter.name));
        }
    }
}

/// SeaORM has one type for all of its databases.
const SEA_ORM: bool = cfg!(any(
    all(feature = "sea-orm", feature = "sea-orm-mysql"),
    all(feature = "sea-orm-1", feature = "sea-orm-1-mysql"),
));

fn is_of_every_engine(ty: &Type) -> bool {
    let name = match ty {
        Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
        Type::Group(group) => return is_of_every_engine(&group.elem),
        _ => Some(ty.to_token_stream().to_string()),
    };
    name.is_some_and(|name| OF_EVERY_ENGINE.contains(&&*name) || SEA_ORM && name == "DatabaseConnection")
}
