delete from authors;
