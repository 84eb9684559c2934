create table customers (id serial primary key, email text not null unique);
