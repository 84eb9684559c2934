insert into authors values ('Ada');
