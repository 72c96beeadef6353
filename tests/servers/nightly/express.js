const app = require('express')();
app.get('/', (request, response) => response.send(`slot ${process.env.MAITRED_SLOT}\n`));
app.listen(Number(process.argv[2]), '127.0.0.1');
