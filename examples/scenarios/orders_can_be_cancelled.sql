insert into orders (article) values ('tea'), ('milk');
delete from orders where article = 'tea';
-- then
select array_agg(article) = '{milk}' from orders;
