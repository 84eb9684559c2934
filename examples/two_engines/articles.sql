create table articles (id int primary key, name text not null, cents int not null check (cents > 0));
insert into articles values (1, 'tea', 450), (2, 'milk', 120);
