insert into orders (article) values ('tea'), ('milk');
-- then
select count(*) = 2 from orders;
select max(id) = 2 from orders;
