//! Accounts: the superuser by the Unix socket, and by TCP.

use std::net::SocketAddr;

use super::client;
use super::config::PORT;
use crate::engine::url::percent_encode;
use crate::engine::{Dialect, Installation, Task, TcpAccess};

pub(super) const SUPERUSER: &str = "root";

/// Keeps statements out of the log of all queries.
const UNLOGGED: &str = "SET SESSION sql_log_off = 1;\n";

/// Leaves the superuser two accounts: one by the Unix socket without a password, and one by TCP,
/// which is locked. The latter exists always, since objects that clients make by TCP belong to it.
pub(super) const SET_UP: &str = "\
DELETE FROM mysql.global_priv WHERE User IN ('root', '') AND Host <> 'localhost';
DELETE FROM mysql.proxies_priv WHERE Host <> 'localhost';
FLUSH PRIVILEGES;
CREATE USER root@'%' ACCOUNT LOCK;
GRANT ALL PRIVILEGES ON *.* TO root@'%' WITH GRANT OPTION;
";

/// Returns the access by TCP. Without a client the account stays locked.
pub(super) fn access(
    installation: &Installation,
    database: &str,
    address: SocketAddr,
    password: &str,
) -> TcpAccess {
    let path = percent_encode(database);
    let access = TcpAccess::new(PORT, format!("mysql://{SUPERUSER}:{password}@{address}/{path}"))
        .jdbc_url(format!("jdbc:mariadb://{address}/{path}?user={SUPERUSER}&password={password}"))
        .env("MYSQL_HOST", address.ip().to_string())
        .env("MYSQL_TCP_PORT", address.port().to_string())
        .env("MYSQL_USER", SUPERUSER)
        .env("MYSQL_PWD", password)
        .env("MYSQL_DATABASE", database);
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
