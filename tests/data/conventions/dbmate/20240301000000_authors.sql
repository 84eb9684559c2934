-- migrate:up
create temporary table names (name text) on commit drop;
copy names from stdin;
Ada
Grace
\.
create table authors as select name from names;
-- migrate:down
drop table authors;
