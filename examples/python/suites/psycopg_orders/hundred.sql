insert into orders (article) select 'tea ' || n from generate_series(1, 100) n;
