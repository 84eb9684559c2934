-- Needs what one.sql has inserted.
insert into notes (body) select body || ', two' from notes;
