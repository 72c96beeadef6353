module.exports = {
  mode: 'development',
  context: __dirname,
  entry: './public/app.js',
  devServer: { static: `${__dirname}/public` },
};
