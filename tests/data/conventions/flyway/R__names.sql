insert into authors values ('Grace');
