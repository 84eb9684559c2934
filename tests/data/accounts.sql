update accounts set owner = 'Grace' where id = 1;
