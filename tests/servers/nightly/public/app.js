document.title = 'bundle';
