//! Accounts: the superuser by the Unix socket, and by TCP.

use super::client;
use super::config::{PORT, Product};
use super::tls;
use crate::engine::url::percent_encode;
use crate::engine::{Dialect, Task, TcpAccess, TcpRequest};

pub(super) const SUPERUSER: &str = "root";

/// Keeps statements out of the log of all queries.
const UNLOGGED: &str = "SET SESSION sql_log_off = 1;\n";

/// Gives the superuser an account by TCP, which is locked, beside that by the Unix socket without a
/// password. It exists always, since objects that clients make by TCP belong to it.
const ACCOUNTS: &str = "\
CREATE USER root@'%' ACCOUNT LOCK;
GRANT ALL PRIVILEGES ON *.* TO root@'%' WITH GRANT OPTION;
";

/// Removes the accounts that MariaDB makes beside `root@localhost`.
const OTHERS: &str = "\
DELETE FROM mysql.global_priv WHERE User IN ('root', '') AND Host <> 'localhost';
DELETE FROM mysql.proxies_priv WHERE Host <> 'localhost';
FLUSH PRIVILEGES;
";

pub(super) fn set_up(product: Product) -> String {
    let others = if product == Product::MariaDb { OTHERS } else { "" };
    format!("{others}{ACCOUNTS}")
}

/// Returns the access by TCP. Without a client the account stays locked.
pub(super) fn access(product: Product, database: &str, request: &TcpRequest<'_>) -> TcpAccess {
    let TcpRequest { installation, address, password, root_certificate, root } = *request;
    let path = percent_encode(database);
    let scheme = if product == Product::MariaDb { "mariadb" } else { "mysql" };
    let options = tls::jdbc_options(product, root_certificate);
    let url =
        format!("mysql://{SUPERUSER}:{password}@{address}/{path}{}", tls::url_options(root_certificate));
    let jdbc = format!("jdbc:{scheme}://{address}/{path}?{options}&user={SUPERUSER}&password={password}");
    let access = TcpAccess::new(PORT, url)
        .jdbc_url(jdbc)
        .env("MYSQL_HOME", client::home(root))
        .env("MYSQL_HOST", address.ip().to_string())
        .env("MYSQL_TCP_PORT", address.port().to_string())
        .env("MYSQL_USER", SUPERUSER)
        .env("MYSQL_PWD", password)
        .env("MYSQL_DATABASE", database);
    let access = match root_certificate {
        Some(path) => access.env("MYSQL_SSL_CA", path.display().to_string()),
        None => access,
    };
    let Ok(client) = client::own(installation) else { return access };
    let password = Dialect::MySql.literal(password);
    let unlock = format!(
        "{UNLOGGED}CREATE USER IF NOT EXISTS root@'%';
GRANT ALL PRIVILEGES ON *.* TO root@'%' WITH GRANT OPTION;
ALTER USER root@'%' IDENTIFIED BY {password} ACCOUNT UNLOCK;
"
    );
    let lock = format!("{UNLOGGED}ALTER USER IF EXISTS root@'%' IDENTIFIED BY '' ACCOUNT LOCK;\n");
    access.task(Task::new(client.clone(), unlock)).reset(Task::new(client, lock))
}
