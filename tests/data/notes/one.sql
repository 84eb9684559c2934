insert into notes (body) values ('one');
