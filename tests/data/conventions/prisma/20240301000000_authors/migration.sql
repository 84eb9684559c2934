create table authors (name text);
insert into authors values ('Ada'), ('Grace');
