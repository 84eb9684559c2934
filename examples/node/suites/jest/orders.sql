create table orders (id serial primary key, article text not null);
