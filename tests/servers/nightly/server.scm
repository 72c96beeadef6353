(use-modules (web server))
(run-server (lambda (request body) (values '((content-type . (text/plain))) "guile\n")) 'http (list #:port (string->number (cadr (command-line)))))
