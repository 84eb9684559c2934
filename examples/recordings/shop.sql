create table products (id integer primary key, name text not null, stock integer not null);
create table orders (
    id serial primary key,
    product integer not null references products,
    quantity integer not null,
    status text not null default 'open'
);
insert into products values (1, 'tea', 20), (2, 'milk', 35), (3, 'honey', 8);
insert into orders (product, quantity) values (1, 3), (3, 1);
