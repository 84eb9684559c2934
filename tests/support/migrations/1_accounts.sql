create table accounts (id int primary key, owner text not null);
insert into accounts values (1, 'Ada');
